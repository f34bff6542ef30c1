# JoeyNMT training on the same pairs, as a peer of `bench --against`: CONFIG is its configuration, whose
# `logging_freq` and `updates` are small. It prints "Tokens per Sec"; the last of them counts.
python -m joeynmt train "${CONFIG:?set CONFIG to a configuration of JoeyNMT}" --skip-test 2>&1 |
    awk 'match($0, /Tokens per Sec: *[0-9]+/) { rate = substr($0, RSTART, RLENGTH); sub(/.*: */, "", rate) }
         END { if (rate) print rate " tokens/s" }'
