"""An index in an object store, by its URL: made, searched, merged; and what is refused."""

from pathlib import Path

import pytest

from tests.library.small_index import entry, manifest, windows_of, write_small_index
from vatt.cli.main import main
from vatt.errors import ConfigError, DataError
from vatt.library.index_place import IndexPlace
from vatt.library.index_writer import index_writer
from vatt.library.vector_index import Term, open_index

pytest.importorskip("lancedb", reason='needs the extra "search"')


def test_a_place_is_a_folder_or_a_url_of_a_store_that_is_known():
    assert IndexPlace("films.index").folder == Path("films.index")
    assert IndexPlace("file:///a/b%20c").folder == Path("/a/b c")
    assert str(IndexPlace(Path("s3://bucket/films/"))) == "s3://bucket/films"
    assert IndexPlace("s3://bucket/films").folder is None
    for name in ("memory://x", "az://container/films", "hf://owner/name"):
        with pytest.raises(ConfigError, match=r"cannot lie in .* s3:// or gs://"):
            IndexPlace(name)


@pytest.fixture
def store(monkeypatch):
    """A server that speaks S3, on this machine; gives its client."""
    server = pytest.importorskip("moto.server", reason="needs moto[s3], flask and flask-cors")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    address = "http://{}:{}".format(*running.get_host_and_port())
    for name, value in {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = pytest.importorskip("boto3").client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="films")
    yield client
    running.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the server and its client
def test_an_index_in_a_store_is_an_index(store, tmp_path, capsys):
    here = write_small_index(tmp_path / "here")
    place = IndexPlace("s3://films/some/index")
    files = [entry(f"/films/film-{n}.mp4", audio=n != 1) for n in range(3)]
    with index_writer(place, manifest()) as writer:
        writer.add(windows_of(files[0]), files[:1])
    with index_writer(place, manifest()) as writer:  # goes on
        assert len(writer.files) == 1
        writer.add(windows_of(files[1]), files[1:2])
        writer.add(windows_of(files[2], video=False), files[2:])
        writer.describe([entry("/films/film-0.mp4", title="moved")])
    there = open_index(str(place))
    assert (there.manifest.files, there.manifest.windows) == (3, 30)
    assert there.file(files[0].file_id).title == "moved"
    _, vectors = here.all_vectors("vt")
    term = [Term(vectors[4], "vt")]
    found, expected = there.scores(term), here.scores(term)
    assert [one.window_id for one, _ in found] == [one.window_id for one, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected])
    assert main(["index", "check", str(place)]) == 0
    assert main(["index", "merge", str(place), str(here.place), "--out", "s3://films/b"]) == 0
    assert main(["index", "export", "s3://films/b", "--out", str(tmp_path / "parquet")]) == 0
    with index_writer(place, manifest(model_hash="1" * 64), rebuild=True) as writer:
        assert not writer.files
    names = [one["Key"] for one in store.list_objects_v2(Bucket="films")["Contents"]]
    assert {"some/index/manifest.json", "b/manifest.json"} <= set(names)
    capsys.readouterr()
    with (
        pytest.raises(DataError, match="s3://absent/x: The specified bucket does not exist; look"),
        index_writer(IndexPlace("s3://absent/x"), manifest()),
    ):
        pass
