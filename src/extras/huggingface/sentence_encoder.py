"""What sentence-transformers writes beside a network: pooling, normalisation, the longest text, prompts.

A folder of its is that of HuggingFace's network with ``modules.json``, which lists what follows one another, and a
folder of settings for each. Of a cross-encoder it reads the function of the score in ``config.json``.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.encoder import Pooling
from src.errors import InputError
from src.extras.huggingface.json_files import CONFIG, read_json, read_json_list, setting, write_json
from src.extras.huggingface.tokenizer_files import SETTINGS as TOKENIZER

Settings = dict[str, Any]

MODULES, LENGTH, PROMPTS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
POOLING = "1_Pooling"
# pooling here -> the older key of it, which all versions read
MODES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
NO_ACTIVATION = "torch.nn.modules.linear.Identity"
KEEPS_ORDER = (NO_ACTIVATION, "torch.nn.modules.activation.Sigmoid")


def read_pooling(folder: Path, positions: int) -> Settings | None:
    """Read how a folder's texts are encoded, as a checkpoint holds it; None for a folder that does not say.

    Args:
        folder: of a network.
        positions: of it.
    """
    if not (folder / MODULES).is_file():
        return None
    modules = [
        (setting(module, "type", str, "", MODULES), setting(module, "path", str, "", MODULES))
        for module in read_json_list(folder / MODULES)
    ]
    kinds = [kind.rpartition(".")[2] for kind, _ in modules]
    if kinds == ["Transformer"]:  # a cross-encoder
        return None
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or modules[0][1]:
        raise InputError(
            f"{folder / MODULES} lists {', '.join(kinds)}: what can be read is a Transformer in the folder itself, "
            "Pooling, and perhaps Normalize"
        )
    pooling = _below(folder, modules[1][1]) / CONFIG
    found = read_json(pooling, needed=True)
    named = [mode for mode, key in MODES.items() if setting(found, key, bool, False, str(pooling))]
    named += [
        key for key, on in found.items() if key.startswith("pooling_mode_") and on is True and key not in MODES.values()
    ]
    mode = setting(found, "pooling_mode", str, "+".join(named) or "mean", str(pooling))
    if mode not in MODES:
        raise InputError(f"{pooling} has the pooling {mode}: here it is one of {', '.join(MODES)}")
    prompts, default = _prompts(folder, kinds)
    if not setting(found, "include_prompt", bool, True, str(pooling)) and any(prompts.values()):
        raise InputError(f"{pooling} has include_prompt false: here the tokens of a prompt are pooled as all others")
    settings = read_json(folder / LENGTH)
    if setting(settings, "do_lower_case", bool, False, LENGTH):
        raise InputError(f"{folder / LENGTH} has do_lower_case true: here a tokenizer says it itself")
    length = setting(settings, "max_seq_length", int, None, LENGTH)
    if length is None:
        length = read_json(folder / TOKENIZER).get("model_max_length")
    length = min(length, positions) if isinstance(length, int) and length > 2 else positions
    return asdict(Pooling(mode, "Normalize" in kinds, length, prompts, default))  # type: ignore[arg-type]


def _below(folder: Path, path: str) -> Path:
    """Refuse a module outside of the folder."""
    if Path(path).name != path:
        raise InputError(f"{folder / MODULES} has the path {path!r}, which is no folder beside it")
    return folder / path


def _prompts(folder: Path, kinds: list[str]) -> tuple[dict[str, str], str | None]:
    """Read the prompts by name, and the default one's name."""
    settings = read_json(folder / PROMPTS)
    similarity = setting(settings, "similarity_fn_name", str, "cosine", PROMPTS)
    if similarity != "cosine" and not (similarity == "dot" and "Normalize" in kinds):
        raise InputError(
            f"{folder / PROMPTS} has similarity_fn_name {similarity!r}: here vectors are compared by cosine"
        )
    prompts = setting(settings, "prompts", dict, {}, PROMPTS)
    found = {name: setting(prompts, name, str, "", PROMPTS) for name in prompts}
    if "document" not in found and (name := next((n for n in ("passage", "corpus") if n in found), None)):
        found["document"] = found[name]
    default = setting(settings, "default_prompt_name", str, None, PROMPTS)
    if default is not None and default not in found:
        raise InputError(f"{folder / PROMPTS} has default_prompt_name {default!r}, which is none of its prompts")
    return found, default


def write_pooling(pooling: Pooling, d_model: int, positions: int, folder: Path) -> None:
    """Write what ``SentenceTransformer`` reads beside a network, of any version.

    Args:
        pooling: how texts are encoded.
        d_model: width of the vectors.
        positions: of the network.
        folder: its.
    """
    modules = {"Transformer": "", "Pooling": POOLING}
    if pooling.normalize:
        modules["Normalize"] = "2_Normalize"
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(modules.items())
    ]
    for path in filter(None, modules.values()):
        (folder / path).mkdir()
    write_json(folder / MODULES, listed)
    modes = {key: mode == pooling.mode for mode, key in MODES.items()}
    write_json(folder / POOLING / CONFIG, {"word_embedding_dimension": d_model, **modes, "include_prompt": True})
    write_json(folder / LENGTH, {"max_seq_length": pooling.max_length or positions, "do_lower_case": False})
    prompts = {"prompts": pooling.prompts, "default_prompt_name": pooling.default_prompt}
    write_json(folder / PROMPTS, {**prompts, "similarity_fn_name": "cosine"})


def score_note(theirs: Settings, folder: Path) -> list[str]:
    """Say that a cross-encoder's scores are its logits here, if HuggingFace's user sees a function of them."""
    further = setting(theirs, "sentence_transformers", dict, {})
    default = setting(theirs, "sbert_ce_default_activation_function", str, None)
    default = setting(further, "activation_fn", str, default)
    activation = setting(read_json(folder / PROMPTS), "activation_fn", str, default, PROMPTS)  # the newest key
    if activation in (None, NO_ACTIVATION):
        return []
    if activation not in KEEPS_ORDER:
        raise InputError(f"config.json has activation_fn {activation!r}: here a score is the logit, without a function")
    return [f"its scores are {activation.rpartition('.')[2]} of a logit, here they are the logit: in the same order"]
