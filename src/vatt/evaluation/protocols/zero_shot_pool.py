"""Protocol "zero-shot-pool": retrieval across modalities and classes from text, without training.

Text → video: the pool holds one clip for each different caption. Audio → video and back: the pool
holds clips with audible audio. A class is described by sentences. Chance and the same network
before training are measured beside (§4.3).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vatt.any_encoder import PeerEncoder
from vatt.encoder import Encoder
from vatt.errors import DataError
from vatt.evaluation.features import PRETRAINED, RANDOM_INIT, SplitFeatures, untrained
from vatt.evaluation.metrics import RETRIEVAL_MEASURES, balanced_accuracy
from vatt.evaluation.results import Measure, ids_hash, take
from vatt.evaluation.retrieval import (
    RetrievalPool,
    ceiling,
    draw_pool,
    judge,
    num_sharing,
    one_clip_per_text,
    similarities,
    unit_rows,
)

PROTOCOL = "zero-shot-pool"
Prompts = Mapping[str, Mapping[str, Sequence[str]]]  # label column → class → sentences


def measure(
    encoder: Encoder | PeerEncoder,
    clips: SplitFeatures,
    prompts: Prompts,
    *,
    pool: int,
    min_peak: float,
    seed: int,
) -> tuple[dict[str, Measure], dict[str, str]]:
    """All measures of the protocol, and the reasons of those that the data has too little for.

    Args:
        encoder: the trained model, or a peer's; that has no network before training beside it.
        clips: features of the clips to evaluate.
        prompts: enable classification by text.
        pool: most clips to retrieve from.
        min_peak: clips whose loudest sample is below this count as silent.
        seed: of the pools, and of the network before training.

    Raises:
        DataError: the prompts do not fit the labels.
    """
    encoders: dict[str, Encoder | PeerEncoder] = {PRETRAINED: encoder}
    if isinstance(encoder, Encoder):
        random_init = untrained(encoder.module.config, seed=seed).to(encoder.device)
        encoders[RANDOM_INIT] = Encoder(
            random_init, encoder.spec, encoder.tokenizer, encoder.folder, encoder.frame_path
        )
    audible = partial(audio_and_video, clips, size=pool, min_peak=min_peak, seed=seed)
    measures, left_out = take(
        {
            "text_to_video": partial(text_to_video, encoders, clips, size=pool, seed=seed),
            "audio_to_video": partial(audible, "audio_va", "video_va"),
            "video_to_audio": partial(audible, "video_va", "audio_va"),
        }
    )
    for column, sentences in prompts.items():
        measures[f"{column}_from_text"] = label_from_text(encoders, clips, column, sentences)
    return measures, left_out


def text_to_video(
    encoders: Mapping[str, Encoder | PeerEncoder], clips: SplitFeatures, *, size: int, seed: int
) -> Measure:
    """Find the clip that a caption was given to, among clips with other captions.

    Raises:
        DataError: fewer than two different captions.
    """
    pool = caption_pool(encoders[PRETRAINED], clips, size, seed=seed)
    captions = [clips.captions[row] for row in pool.rows]
    scores = {
        network: similarities(
            text_rows(encoder, captions),
            clips.of(network, "video_vt")[pool.rows],
        )
        for network, encoder in encoders.items()
    }
    said, facts = clips.labels("said")[pool.rows], clips.labels("facts")[pool.rows]
    unknown = encoders[PRETRAINED].encode_text(captions).unknown
    return {
        **compared(scores, pool),
        **(ceiling(said.tolist(), facts.tolist()) if all(facts) else {}),
        **({} if unknown is None else {"unknown_words": float(unknown.mean())}),
        "clips_sharing_a_text": num_sharing(model_texts(encoders[PRETRAINED], clips.captions)),
        "ids_hash": ids_hash(clips.clips[row].id for row in pool.rows),
    }


def text_rows(encoder: Encoder | PeerEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit rows of texts [N, E_vt].

    Raises:
        DataError: the encoder gives none.
    """
    if isinstance(encoder, PeerEncoder) and "text" not in encoder.has:
        raise DataError("the encoder takes no text")
    vt = encoder.encode_text(texts).vt
    if vt is None:
        raise DataError("the encoder gives no vt of texts")
    return vt.cpu().numpy()


def caption_pool(
    encoder: Encoder | PeerEncoder, clips: SplitFeatures, size: int, *, seed: int
) -> RetrievalPool:
    """Clips to find by their captions: one for each text that the model can tell apart.

    Raises:
        DataError: fewer than two different captions.
    """
    texts = model_texts(encoder, clips.captions)
    return draw_pool(one_clip_per_text(texts, seed=seed), size, seed=seed)


def model_texts(encoder: Encoder | PeerEncoder, captions: Sequence[str]) -> Sequence[str]:
    """The captions as the model sees them; "" where there is none.

    Texts that differ in case, punctuation or unknown words only become equal. How a peer's encoder
    reads them is not known: they stay as they are.
    """
    if isinstance(encoder, PeerEncoder) or encoder.tokenizer is None:
        return captions
    rows = encoder.tokenizer.encode(captions, encoder.spec.words).tolist()
    return [" ".join(map(str, row)) if row[0] else "" for row in rows]


def audio_and_video(
    clips: SplitFeatures, queries: str, items: str, *, size: int, min_peak: float, seed: int
) -> Measure:
    """Find the clip that some audio belongs to, or the other way, among clips with audible audio.

    Args:
        clips: features of all clips.
        queries: name of the vectors to search with, as in `SplitFeatures.vectors`.
        items: name of the vectors to find.
        size: most clips in the pool.
        min_peak: clips whose loudest sample is below this count as silent.
        seed: of the pool.

    Raises:
        DataError: fewer than two clips have audible audio.
    """
    audible = np.flatnonzero(clips.peaks >= max(min_peak, 1e-9))
    pool = draw_pool(audible, size, seed=seed)
    scores = {
        network: similarities(
            clips.of(network, queries)[pool.rows], clips.of(network, items)[pool.rows]
        )
        for network in clips.networks(items)
    }
    return {
        **compared(scores, pool),
        "clips_without_sound": len(clips.clips) - len(audible),
        "ids_hash": ids_hash(clips.clips[row].id for row in pool.rows),
    }


def compared(scores: Mapping[str, NDArray[np.float32]], pool: RetrievalPool) -> Measure:
    """Recalls of the trained network, with chance and the untrained one, if any, beside."""
    beside = {
        f"random_init_{name}": value
        for network in scores.keys() & {RANDOM_INIT}
        for name, value in judge(scores[network], pool).items()
        if name in RETRIEVAL_MEASURES
    }
    return judge(scores[PRETRAINED], pool) | beside


def label_from_text(
    encoders: Mapping[str, Encoder | PeerEncoder],
    clips: SplitFeatures,
    column: str,
    sentences: Mapping[str, Sequence[str]],
) -> Measure:
    """Give each clip the class whose sentences are nearest in vt; balanced accuracy in [0, 1].

    Raises:
        DataError: no clip has this label, or one has a class without sentences.
    """
    labels = clips.labels(column)
    rows = np.flatnonzero(labels != "")
    unknown = sorted(set(labels[rows].tolist()) - set(sentences))
    if not len(rows) or unknown:
        found = f"classes without sentences: {unknown}" if unknown else "no clip with this label"
        raise DataError(f"prompts for {column!r}: {found}; expected {sorted(sentences)}")
    names = np.array(sorted(sentences), dtype=np.str_)
    accuracy: Measure = {}
    for network, encoder in encoders.items():
        classes = np.stack([class_vector(encoder, sentences[name]) for name in names.tolist()])
        scores = similarities(clips.of(network, "video_vt")[rows], classes)
        accuracy[network] = balanced_accuracy(names[scores.argmax(axis=1)], labels[rows])
    return accuracy | {"chance": 1 / len(names), "n": len(rows), "classes": len(names)}


def class_vector(encoder: Encoder | PeerEncoder, sentences: Sequence[str]) -> NDArray[np.float32]:
    """Mean of the sentences' unit rows [E_vt], of length one again."""
    return unit_rows(text_rows(encoder, sentences).mean(0))


def read_prompts(path: Path) -> Prompts:
    """Label column → class → sentences.

    Raises:
        DataError: the file is missing or of another form.
    """
    try:
        prompts: dict[str, dict[str, list[str]]] = json.loads(path.read_text(encoding="utf-8"))
        good = all(
            sentences and all(isinstance(sentence, str) for sentence in sentences)
            for classes in prompts.values()
            for sentences in classes.values()
        )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: cannot read prompts: {error}") from error
    if not good:
        raise DataError(f"{path}: expected {{column: {{class: [sentence, …]}}}}")
    return prompts
