"""Whether the charts of a run hold all that it logged, read back as TensorBoard reads it."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout


def events_of(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run), size_guidance={"images": 0, "tensors": 0, "scalars": 0}).Reload()


def check_charts(run: Path) -> None:
    """Each curve that is logged has a place in the custom scalars, and these have no curve that is not."""
    events = events_of(run)
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charted = {tag.strip("^$") for c in layout.category for chart in c.chart for tag in chart.multiline.tag}
    assert charted - {"throughput/mfu"} == set(events.Tags()["scalars"])  # a CPU has no data sheet
