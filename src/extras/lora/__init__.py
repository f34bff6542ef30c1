"""LoRA: a network is fine-tuned by matrices of low rank beside its own, which stay as they are.

`layers` has the layer, `callbacks` what a run is given, `merging` the weights with an adapter, which whoever reads a
checkpoint calls, `peft` the files of HuggingFace's peft, and `cli` the verb.
"""

VERBS = {
    "lora": ("src.extras.lora.cli:lora", "write a run's LoRA adapter as peft has it, or merge one into a checkpoint")
}
