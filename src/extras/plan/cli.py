"""plan: memory, communication, days and cost of a run, for each strategy, before it is started."""

from typing import Annotated

from src.cli.messages import quieten
from src.cli.verb import Fraction, NonNegativeFloat, Positive, number

Tokens = Annotated[float, number(1, 1e18)]


def plan(
    *fit: str,
    devices: Positive = 1,
    device: str = "h100",
    tokens: Tokens | None = None,
    price: NonNegativeFloat | None = None,
    mfu: Fraction | None = None,
    machine: Positive = 8,
    vocab_size: Positive | None = None,
) -> None:
    """Say what a run of fit would take on devices that need not be here, for each strategy.

    Any option of fit may follow. Nothing is trained, and no data are prepared but where only they say how large the
    vocabulary is.

    Args:
        devices: of the run
        device: a100-40, a100-80, h100, h200, b200, l40s, 4090 or cpu
        tokens: to train on, as 2e12; 20 for each parameter if left out
        price: of a device for an hour
        mfu: the fraction of the peak that training reaches; else that of a published or measured run, which is named
        machine: devices of one machine
        vocab_size: in place of the tokenizer's
    """
    # with Lightning and torch, for which its help does not wait
    from src.extras.plan.report import show
    from src.extras.plan.run import read

    quieten()
    show(read(fit, vocab_size), devices, device, machine, tokens, price, mfu)
