"""VATT: Transformers for multimodal self-supervised learning from raw video, audio and text.

    import vatt
    model = vatt.load("runs/demo")
    clips = model.encode_video(["a.mp4", "b.mp4"])

`import vatt` itself imports nothing heavy; `load` brings torch with it when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vatt.encoder import ClipClassifier, Encoder
    from vatt.library.search import open_index
    from vatt.open_model import load, load_classifier

__version__ = "0.1.0"
__all__ = ["ClipClassifier", "Encoder", "load", "load_classifier", "open_index"]


def __getattr__(name: str) -> Any:
    if name == "open_index":
        from vatt.library.search import open_index

        return open_index
    if name in ("load", "load_classifier"):
        from vatt import open_model

        return getattr(open_model, name)
    if name in __all__:
        from vatt import encoder

        return getattr(encoder, name)
    raise AttributeError(f"module 'vatt' has no attribute {name!r}")
