"""GPT with QK-norm, and perhaps with windows in some of its blocks, and HuggingFace's ``Qwen3ForCausalLM``."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

from src.errors import InputError
from src.extras.huggingface.adapter import Settings
from src.extras.huggingface.json_files import setting
from src.extras.huggingface.llama import WITH_WINDOWS, LlamaAdapter, is_of_the_family, read_window
from src.extras.huggingface.matches import Tensors
from src.extras.huggingface.windows import FULL, SLIDING, pattern_of, read_kinds, windows_of
from src.models import GPTConfig


class Qwen3Adapter(LlamaAdapter):
    """Qwen3 is a Llama that norms each head's queries and keys; biases are in its attention alone."""

    model_type = "qwen3"
    classes = {
        "Qwen3ForCausalLM": ("AutoModelForCausalLM", "text-generation"),
        "Qwen3Model": ("AutoModel", "feature-extraction"),
    }
    keys = {
        **{name: key for name, key in LlamaAdapter.keys.items() if name != "mlp_bias"},
        "vocab_size": ("vocab_size", 151936),
        "max_seq_len": ("max_position_embeddings", 32768),
        "n_kv_heads": ("num_key_value_heads", 32),
        "head_dim": ("head_dim", 128),
        "d_ff": ("intermediate_size", 22016),
    }
    only = {**WITH_WINDOWS, "qk_norm": True, "mlp_bias": False}
    handled = LlamaAdapter.handled | {"window_pattern"}
    heads_divide_width = False

    def suits(self, config: GPTConfig) -> bool:
        return is_of_the_family(config) and config.qk_norm

    def read_fields(self, theirs: Settings, tensors: Tensors) -> Settings:
        return {**super().read_fields(theirs, tensors), "qk_norm": True}

    def read_windows(self, theirs: Settings, n_layers: int) -> Settings:
        is_used = setting(theirs, "use_sliding_window", bool, False)
        window = read_window(theirs) if is_used else None
        first = setting(theirs, "max_window_layers", int, 28) if window else n_layers
        kinds = read_kinds(theirs, [FULL if i < first else SLIDING for i in range(n_layers)])
        if SLIDING not in kinds:
            return {}
        if window is None:
            raise InputError("config.json has layer_types with sliding_attention, and no sliding_window that is used")
        return {"window": window - 1, "window_pattern": pattern_of(kinds) if FULL in kinds else None}

    def check(self, config: GPTConfig) -> None:
        super().check(config)
        if len(windows_of(config, config.n_layers)[1]) > 1:
            raise InputError(f"HuggingFace's qwen3 has one window: a network with {config.window} cannot be exported")

    def write_config(self, config: GPTConfig) -> Settings:
        kinds, windows = windows_of(config, config.n_layers)
        window = next(iter(windows), None)
        return {
            **super().write_config(config),
            "use_sliding_window": window is not None,
            "sliding_window": None if window is None else window + 1,
            "layer_types": kinds,
            # of older versions, which know no layer_types: how many blocks are before the first with a window
            "max_window_layers": kinds.index(SLIDING) if SLIDING in kinds else config.n_layers,
        }
