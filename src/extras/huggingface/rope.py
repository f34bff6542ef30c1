"""Rotary positions in HuggingFace's config.json, and in the fields of a configuration here."""

import math
from typing import Any

from src.errors import InputError
from src.extras.huggingface.json_files import CONFIG, setting
from src.nn import BlockConfig

Settings = dict[str, Any]

# rope_type -> what it is called here, and its options whose other values no network here has
SCALINGS: dict[str, tuple[str | None, Settings]] = {
    "default": (None, {}),
    "linear": ("linear", {}),
    "yarn": ("yarn", {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}),
    "llama3": ("llama3", {"low_freq_factor": 1.0, "high_freq_factor": 4.0}),
}
WITH_ORIGINAL_LEN = ("yarn", "llama3")


def read_rope(theirs: Settings, max_seq_len: int) -> Settings:
    """Read the rotation: in the object ``rope_parameters``, or in the older ``rope_theta`` and ``rope_scaling``."""
    key, rope = rope_object(theirs)
    where = f"{key} of {CONFIG}"
    # the older files have these outside
    rope = {name: theirs.get(name) for name in ("rope_theta", "partial_rotary_factor")} | rope
    if nested := next((name for name, value in rope.items() if isinstance(value, dict)), None):
        raise InputError(f"{where} has {nested!r}: the network here turns the queries of all blocks alike")
    kind = rope_type(rope, where)
    if kind not in SCALINGS:
        raise InputError(f"{where} has rope_type {kind!r}: the network here can only have {', '.join(SCALINGS)}")
    scaling, fixed = SCALINGS[kind]
    for name, value in {"partial_rotary_factor": 1.0, **fixed}.items():
        if (held := setting(rope, name, type(value), value, where)) != value:
            raise InputError(f"{where} has {name} {held!r}: the network here can only have {value!r}")
    found: Settings = {"positions": "rotary", "rope_base": float(setting(rope, "rope_theta", float, 1e4, where))}
    if scaling is None:
        return found
    factor = setting(rope, "factor", float, None, where)
    if factor is None:
        raise InputError(f"{where} has no factor, which the rope_type {kind!r} needs")
    found |= {"rope_scaling": scaling, "rope_factor": float(factor)}
    if kind in WITH_ORIGINAL_LEN:
        name = "original_max_position_embeddings"
        original = setting(rope, name, int, max_seq_len, where)
        found["rope_original_len"] = setting(theirs, name, int, original)
    if kind == "yarn":
        _check_temperature(rope, factor, where)
    return found


def rope_object(theirs: Settings) -> tuple[str, Settings]:
    """Find the object that describes the rotation, and its key: the older one, where both are there."""
    key = "rope_scaling" if theirs.get("rope_scaling") else "rope_parameters"
    return key, setting(theirs, key, dict, {})


def rope_type(rope: Settings, where: str) -> str:
    """Read the kind of a rotation, under its name of today or the older one."""
    return setting(rope, "rope_type", str, setting(rope, "type", str, "default", where), where)


def _check_temperature(rope: Settings, factor: float, where: str) -> None:
    """Refuse other factors on the scores than YaRN's paper has (Peng et al. 2023, section 3.4)."""
    expected = 0.1 * math.log(max(factor, 1)) + 1
    held = setting(rope, "attention_factor", float, None, where)
    if held is not None and not math.isclose(held, expected, rel_tol=1e-6):
        raise InputError(f"{where} has attention_factor {held!r}: the network here can only have {expected!r}")
    for name in ("mscale", "mscale_all_dim"):
        if held is None and (value := setting(rope, name, float, None, where)) is not None:
            raise InputError(f"{where} has {name} {value!r}: the network here has none")


def check_rope(config: BlockConfig, model_type: str) -> None:
    """Refuse a scaling that HuggingFace's networks have not."""
    if config.rope_scaling == "ntk":
        dims = config.head_width
        base = config.rope_base * config.rope_factor ** (dims / (dims - 2))
        raise InputError(
            f"HuggingFace's {model_type} has no rope_scaling 'ntk': the network cannot be exported; without it, "
            f"rope_base {base!r} computes the same"
        )


def write_rope(config: BlockConfig) -> Settings:
    """Write the rotation under the older keys, which older programs and newer ones read."""
    if config.rope_scaling is None:
        return {"rope_theta": config.rope_base, "rope_scaling": None}
    scaling: Settings = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling in WITH_ORIGINAL_LEN:
        scaling["original_max_position_embeddings"] = config.rope_original_len
    return {"rope_theta": config.rope_base, "rope_scaling": scaling | SCALINGS[config.rope_scaling][1]}
