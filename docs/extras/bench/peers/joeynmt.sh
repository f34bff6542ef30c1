# JoeyNMT training on the same pieces, as a peer of `bench --against`: PIECES is the folder that joeynmt.py beside this
# file wrote. It prints "Tokens per Sec" every ten updates; the first, of a time that also starts everything, is left out.
config=$PWD/docs/extras/bench/peers/joeynmt.yaml
cd "${PIECES:?set PIECES to the folder that docs.extras.bench.peers.joeynmt wrote}" || exit 1
python -m joeynmt train "$config" --skip-test 2>&1 |
    awk 'match($0, /Tokens per Sec: *[0-9]+/) { rate = substr($0, RSTART, RLENGTH); sub(/.*: */, "", rate)
                                                if (seen++) sum += 1 / rate }
         END { if (seen > 1) printf "%.0f tokens/s\n", (seen - 1) / sum }'
