"""Kind and sizes of an official model, from the names and shapes of its variables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from vatt.convert import names
from vatt.convert.tensor_bundle import Bundle
from vatt.errors import ConversionError
from vatt.models.classifier import ClassifierConfig
from vatt.models.heads import HeadsConfig
from vatt.models.model_config import AudioConfig, ModelConfig, TextConfig, VideoConfig
from vatt.models.spectrogram import SpectrogramConfig
from vatt.models.transformer import TransformerConfig

Kind = Literal[
    "modality-specific, waveform",
    "modality-specific, spectrogram",
    "modality-agnostic",
    "video classifier",
    "waveform classifier",
    "spectrogram classifier",
]
HEAD_WIDTH = 64  # of all published models
CLASSIFIERS: tuple[Kind, ...] = (
    "video classifier",
    "waveform classifier",
    "spectrogram classifier",
)
MOST_LAYERS = 1000  # building more, even without weights, would take far too long
DROPOUT = {"video": 0.5, "audio": 0.0}  # before a classifier (official)


class Variables:
    """Shapes of the model's variables; asking for one that is missing is an error."""

    def __init__(
        self, bundle: Bundle, skipped: Collection[str], head_widths: Mapping[str, int]
    ) -> None:
        self.where = bundle.index
        self.head_widths = head_widths
        self.entries = {
            name: entry for name, entry in bundle.entries.items() if name not in skipped
        }

    def error(self, found: str, name: str = "") -> ConversionError:
        """What to raise; with the offset in the index of what it says of `name`."""
        offset = self.entries[name].index_offset if name in self.entries else 0
        return ConversionError(f"{self.where}: offset {offset}: {found}")

    def kind(self) -> Kind:
        """Which of the official models this is.

        Raises:
            ConversionError: none that is known here.
        """
        if names.SHARED_WORDS in self.entries:
            return "modality-agnostic"
        if names.WORDS in self.entries:
            if f"{names.AUDIO}/spectrum_to_patch/kernel" in self.entries:
                return "modality-specific, spectrogram"
            return "modality-specific, waveform"
        if f"{names.CLASSIFIER}/kernel" in self.entries:
            for kind, (patches, _) in zip(CLASSIFIERS, names.SIGNALS.values(), strict=True):
                if f"{names.FINE_TUNED}/{patches}/kernel" in self.entries:
                    return kind
        raise self.error(
            f"is no model known here; it has {len(self.entries)} variables such as "
            f"{sorted(self.entries)[:3]}; expected a pre-trained tx_fac or ut_fac, or a fine-tuned "
            "vit_*, wat_* or spt_*"
        )

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        """Shape of a variable of `rank` axes, none of them empty."""
        if name not in self.entries:
            raise self.error(f"variable {name} is missing")
        shape = self.entries[name].shape
        if len(shape) != rank or 0 in shape:
            raise self.error(f"{name}: found shape {list(shape)}, expected {rank} sizes", name)
        return shape

    def specific(self) -> ModelConfig:
        """Sizes of three backbones."""
        text = f"{names.TEXT}/base_lm"
        buckets, heads = self.shape(f"{text}/{names.RELATIVE_BIAS}", 2)
        vocabulary, word_width = self.shape(names.WORDS, 2)
        return ModelConfig(
            video=self.video(names.VIDEO),
            audio=self.audio(names.AUDIO),
            text=TextConfig(
                transformer=self.t5(text, heads),
                vocabulary=vocabulary,
                word_width=word_width,
                relative_buckets=buckets,
            ),
            heads=self.heads(),
        )

    def video(self, base: str) -> VideoConfig:
        """Sizes of a video backbone of its own."""
        return VideoConfig(
            transformer=self.transformer("video", f"{base}/tx"),
            patch=self.patch(f"{base}/voxel_to_patch", 3),
            buckets=self.tables(f"{base}/pos_embedding_lookup", names.VIDEO_AXES),
        )

    def audio(self, base: str) -> AudioConfig:
        """Sizes of a waveform or a spectrogram backbone of its own."""
        transformer = self.transformer("audio", f"{base}/tx")
        positions = f"{base}/pos_embedding_lookup"
        if f"{base}/spectrum_to_patch/kernel" not in self.entries:
            (patch,) = self.patch(f"{base}/wave_to_patch", 1)
            (rows,) = self.tables(positions, names.WAVEFORM_AXES)
            return AudioConfig(transformer=transformer, patch=patch, buckets=rows)
        frames, bands = self.patch(f"{base}/spectrum_to_patch", 2)
        time, frequency = self.tables(positions, names.SPECTROGRAM_AXES)
        spectrogram = SpectrogramConfig(
            bands=bands * frequency, patch=(frames, bands), buckets=(time, frequency)
        )
        return AudioConfig(kind="spectrogram", transformer=transformer, spectrogram=spectrogram)

    def classifier(self) -> ClassifierConfig:
        """Sizes of one backbone, the projections around it if it has them, and the classes."""
        base = names.FINE_TUNED
        video = f"{base}/voxel_to_patch/kernel" in self.entries
        modality: Literal["video", "audio"] = "video" if video else "audio"
        model = (
            ModelConfig(video=self.video(base)) if video else ModelConfig(audio=self.audio(base))
        )
        after = f"{base}/post_proj/kernel"
        return ClassifierConfig(
            modality=modality,
            classes=self.shape(f"{names.CLASSIFIER}/kernel", 2)[1],
            dropout=DROPOUT[modality],
            model=replace(
                model,
                pre_projection=f"{base}/pre_proj/kernel" in self.entries,
                post_projection=self.shape(after, 2)[1] if after in self.entries else None,
            ),
        )

    def agnostic(self) -> ModelConfig:
        """Sizes of one backbone for all."""
        if len(set(self.head_widths.values())) > 1:
            raise self.error("has one backbone for all; give --head-width one number")
        transformer = self.transformer("video", f"{names.SHARED}/tx")
        raw, positions = f"{names.SHARED}/raw_to_embeddings", f"{names.SHARED}/pos_embedding_lookup"
        (audio_patch,) = self.patch(f"{raw}/audio", 1)
        (audio_rows,) = self.tables(f"{positions}/audio", names.WAVEFORM_AXES)
        (text_rows,) = self.tables(f"{positions}/text", names.WAVEFORM_AXES)
        vocabulary, word_width = self.shape(names.SHARED_WORDS, 2)
        return ModelConfig(
            shared=True,
            video=VideoConfig(
                transformer=transformer,
                patch=self.patch(f"{raw}/video", 3),
                buckets=self.tables(f"{positions}/video", names.VIDEO_AXES),
            ),
            audio=AudioConfig(transformer=transformer, patch=audio_patch, buckets=audio_rows),
            text=TextConfig(
                transformer=transformer,
                vocabulary=vocabulary,
                word_width=word_width,
                buckets=text_rows,
            ),
            heads=self.heads(),
            post_projection=self.shape(f"{names.SHARED}/post_proj/video/kernel", 2)[1],
        )

    def transformer(self, modality: str, prefix: str) -> TransformerConfig:
        """Size of a backbone; its number of heads follows from the width of one."""
        name = f"{prefix}/layers/0/mha/q/kernel"
        width, attention_width = self.shape(name, 2)
        head_width = self.head_widths.get(modality, HEAD_WIDTH)
        if attention_width % head_width:
            raise self.error(
                f"{name}: attention is {attention_width} wide, which is no multiple of the head "
                f"width {head_width}; say the right one, e.g. --head-width {modality}=32",
                name,
            )
        return TransformerConfig(
            layers=self.layers(prefix),
            width=width,
            heads=attention_width // head_width,
            head_width=head_width,
            mlp_width=self.shape(f"{prefix}/layers/0/feed_forward/mlp/wi/kernel", 2)[1],
        )

    def t5(self, prefix: str, heads: int) -> TransformerConfig:
        """Size of the text backbone; its relative bias has a column for every head."""
        name = f"{prefix}/layers/0/self_attention/attention/q/kernel"
        width, attention_width = self.shape(name, 2)
        head_width = attention_width // heads
        if attention_width % heads or self.head_widths.get("text", head_width) != head_width:
            raise self.error(
                f"{name}: attention is {attention_width} wide, and there are {heads} heads; "
                f"expected heads of {self.head_widths.get('text', 'equal width')}",
                name,
            )
        return TransformerConfig(
            layers=self.layers(prefix),
            width=width,
            heads=heads,
            head_width=head_width,
            mlp_width=self.shape(f"{prefix}/layers/0/feed_forward/mlp/wi/kernel", 2)[1],
        )

    def layers(self, prefix: str) -> int:
        """Number of layers; that they are numbered without gaps is checked with the names."""
        start = f"{prefix}/layers/"
        inside = (name.removeprefix(start) for name in self.entries if name.startswith(start))
        count = len({rest.split("/")[0] for rest in inside})
        if count > MOST_LAYERS:
            raise self.error(f"{prefix}: found {count} layers, expected at most {MOST_LAYERS}")
        return count

    def patch(self, layer: str, axes: int) -> Any:
        """Size of a patch along each axis."""
        return self.shape(f"{layer}/kernel", axes + 2)[:axes]

    def tables(self, lookup: str, axes: tuple[str, ...]) -> Any:
        """Rows of the position table of each axis."""
        return tuple(
            self.shape(f"{lookup}/{axis}_position_embeddings/embeddings", 2)[0] for axis in axes
        )

    def heads(self) -> HeadsConfig:
        """Sizes of the common spaces."""
        return HeadsConfig(
            va=self.shape(f"{names.HEADS}/vid_to_hid/kernel", 2)[1],
            vt=self.shape(f"{names.HEADS}/txt_to_vat/kernel", 2)[1],
        )

    def check_shapes(self, theirs: names.Names, expected: Mapping[str, tuple[int, ...]]) -> None:
        """The variables that are there have the shapes of their places.

        Raises:
            ConversionError: not so; names the variables.
        """
        for ours, sources in theirs.items():
            if not set(sources) <= self.entries.keys():
                continue
            shapes = [names.oriented_shape(name, self.entries[name].shape) for name in sources]
            rows = sum(shape[0] for shape in shapes if shape)
            joined = (rows, *shapes[0][1:])
            if joined != expected[ours] or len({shape[1:] for shape in shapes}) > 1:
                raise self.error(
                    f"{', '.join(sources)}: found {[self.entries[name].shape for name in sources]},"
                    f" which do not make {ours} {expected[ours]}",
                    sources[0],
                )
