"""Other programs by their command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.errors import InputError
from src.extras.bench.peers import External, read_rate


@given(st.floats(0.001, 1e9), st.sampled_from(["{:.3f}", "{:,.3f}", "{:e}"]), st.sampled_from([" ", "", "  "]))
def test_the_last_number_counts(value, form, space):
    text = form.format(value)
    output = f"step 1: 17 tokens/s\nloss 3.2 at 12:30, {text}{space}tokens/s\n5 seconds, 9 sentences/s"
    assert read_rate(output, "tokens/s") == pytest.approx(float(text.replace(",", "")))
    assert read_rate(output, "sentences/s") == 9


@pytest.mark.parametrize("output", ["", "tokens/s", "1234 tok/s", "loss 3.4\ntokens/s: 12"])
def test_nothing_that_is_not_there(output):
    assert read_rate(output, "tokens/s") is None


def test_a_script(tmp_path):
    script = tmp_path / "peer.sh"
    script.write_text("# a peer\necho 10 tokens/s\necho '1,234.5 tokens/s' >&2\necho bye\n")
    assert External(script, "tokens/s").rate() == 1234.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("echo working; echo no such thing >&2; exit 3", "failed with status 3: no such thing"),
        ("exit 4", "failed with status 4: no output"),
        ("echo 12 sentences/s", "printed no number in front of tokens/s"),
        ("echo 0 tokens/s", "printed no number in front of tokens/s"),
    ],
)
def test_a_script_that_does_not_do(content, said, tmp_path):
    script = tmp_path / "peer.sh"
    script.write_text(content)
    with pytest.raises(InputError, match=said):
        External(script, "tokens/s").rate()
