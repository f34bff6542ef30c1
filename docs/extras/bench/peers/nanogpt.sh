# nanoGPT's documented CPU command at 6 layers x 384, block 256, batch 8, as a peer of `bench --against`.
# NANOGPT names its checkout, whose data/shakespeare_char/prepare.py has been run. It prints the time of each step.
# The first of its figures, of a step that also starts everything, are left out; the rest are averaged.
cd "${NANOGPT:?set NANOGPT to a checkout of nanoGPT}" || exit 1
python train.py config/train_shakespeare_char.py --device=cpu --compile=False --eval_only=False --eval_interval=1000000 \
    --eval_iters=1 --log_interval=1 --always_save_checkpoint=False --max_iters="${STEPS:-20}" \
    --n_layer=6 --n_head=6 --n_embd=384 --block_size=256 --batch_size=8 --dropout=0.0 --gradient_accumulation_steps=1 |
    awk '/^iter [0-9]+:/ { gsub(/[:,]/, ""); for (i = 1; i <= NF; i++) if ($i == "time" && $2 >= 5) { sub(/ms/, "", $(i + 1)); ms += $(i + 1); n++ } }
         END { if (n) printf "%.1f tokens/s\n", 8 * 256 * n / (ms / 1000) }'
