"""benchmarks: how fast kvq is, next to what a user has without it.

    python -m benchmarks [codecs] [commands] [threads] [peers] [options]    in the repository

    codecs      every codec, head_dim and dtype: encode and decode, next to a cast and a copy
    commands    whole commands next to cp, zstd and sha256sum
    threads     two threads of one command next to two commands side by side
    peers       codecs next to other packages that run on a CPU, at their bits and their error

Whatever is compared runs in turn, round after round, so that a slow minute of the machine hits
all of it. A figure is the median of rounds; a ratio is the median of ratios within a round.
A is `page.astype(np.float32)` on as many F16 elements, on as many threads, in the same round
and process; copy is a copy of the same bytes into one page that stays in cache.
"""
