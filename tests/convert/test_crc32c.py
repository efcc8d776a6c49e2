import random

from hypothesis import given, settings
from hypothesis import strategies as st

from vatt.convert.crc32c import crc32c, masked


def plain(data: bytes) -> int:
    """The definition, bit by bit."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_published_values():  # RFC 3720, B.4
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


def test_masked_form():
    assert masked(0) == 0xA282EAD8
    assert masked(0xE3069283) == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32


@settings(deadline=None)  # the first call makes the tables
@given(st.binary(max_size=300))
def test_any_length_equals_the_definition(data):
    assert crc32c(data) == plain(data)


@settings(deadline=None)  # the first call makes the tables
@given(st.binary(max_size=100), st.binary(max_size=100))
def test_parts_one_after_the_other_give_the_whole(first, second):
    assert crc32c(second, crc32c(first)) == crc32c(first + second)


def test_long_data_equals_the_definition():
    data = random.Random(0).randbytes(70_001)
    assert crc32c(data) == plain(data)


def test_pieces_are_joined():
    data = random.Random(1).randbytes((1 << 23) + 12_345)
    assert crc32c(data) == crc32c(data[1000:], crc32c(data[:1000]))
