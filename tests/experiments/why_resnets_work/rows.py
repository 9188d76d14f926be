"""Rows of each analysis, with numbers as in the papers."""

import itertools

NETS = list(itertools.product(("plain", "residual"), (8, 20), (0, 1)))
BETTER = {"plain": 0, "residual": 1}


def nets(**columns):
    """A row for each net; a column is a constant or a function of the net.

    A net is (whether residual, depth / 10, seed).
    """
    return [
        {
            **{"family": family, "depth": depth, "seed": seed},
            **{
                name: value(BETTER[family], depth / 10, seed)
                if callable(value)
                else value
                for name, value in columns.items()
            },
        }
        for family, depth, seed in NETS
    ]


def degradation():
    return nets(
        status="finished",
        clean_train_error=lambda residual, depth, seed: (
            (0.01 if residual else 0.1 * depth) + 0.001 * seed
        ),
        test_error=0.5,
        parameters=1234,
    )


def insertion():
    rows = []
    for how, blocks, rate, step, seed in itertools.product(
        ("none", "residual", "plain_identity", "plain_he"),
        (1, 6),
        (0.01, 0.1),
        (0, 40),
        (0, 1),
    ):
        broken = how == "plain_he"
        if (how == "none") == (blocks == 1):
            count = 0 if how == "none" else blocks
            rows.append(
                {
                    **{"family": "plain", "depth": 20, "seed": seed, "how": how},
                    **{"blocks": count, "rate": rate, "more_steps": step},
                    "train_error": 0.9 if broken else 0.01 + 0.002 * seed,
                    "changed_logits": 900 if broken else 0,
                    "largest_change": 3.0 if broken else 0.0,
                }
            )
    return rows


def gradients():
    rows = []
    for step, layer in itertools.product((0, 140), (1, 2, 3, 4)):
        rows += nets(
            step=step,
            layer=layer,
            gradient_norm=lambda residual, depth, seed, layer=layer: (
                (1 if residual else 10 * depth) ** (4 - layer) + 0.01 * seed
            ),
        )
    return rows


def shattered():
    return [
        row
        for step, distance in itertools.product((0, 140), (0.01, 0.1))
        for row in nets(
            step=step,
            distance=distance,
            correlation=lambda residual, depth, seed: (
                0.9 if residual else 0.5 / depth + 0.01 * seed
            ),
        )
    ]


def grid():
    return [
        row
        for lag in (0, 1)
        for row in nets(
            lag=lag,
            autocorrelation=lambda residual, depth, seed: 0.9 if residual else 0.1,
        )
    ]


def responses():
    return [
        row
        for layer in (1, 2)
        for row in nets(
            layer=layer,
            std=lambda residual, depth, seed: (0.2 if residual else 1.0) / depth,
        )
    ]


def linearity():
    return [
        row
        for block in (1, 2)
        for row in nets(
            block=block,
            change=lambda residual, depth, seed: (0.2 if residual else 1.0) / depth,
        )
    ] + nets(block=3, change=float("nan"))


def lesions():
    return [
        *nets(kind="intact", error=0.05, count=0, block=0, kendall_tau=1.0),
        *(
            row
            for block in (1, 2)
            for row in nets(
                kind="one",
                **{"block": block, "count": 1, "kendall_tau": 1.0},
                error=lambda residual, depth, seed: 0.06 if residual else 0.8,
            )
        ),
    ]


def paths():
    return [
        row
        for length, share, contribution in ((0, 0.25, 0.5), (1, 0.5, 0.1), (2, 0.25, 0))
        for row in nets(
            **{"length": length, "share": share, "contribution": contribution},
            gradient=contribution / share,
        )
        if row["family"] == "residual"
    ]


def stochastic_depth():
    return [
        {
            **{"family": "residual", "depth": 20, "seed": seed},
            **{"death_rate": rate, "removed": count},
            "error": (0.03 if rate else 0.05) + (0.01 if rate else 0.1) * count,
        }
        for rate, count, seed in itertools.product((0.0, 0.5), (0, 1, 2), (0, 1))
    ]


def landscape():
    axis = (-1.0, -0.5, 0.0, 0.5, 1.0)

    def at(first, second):
        square = first**2 + second**2
        ripple = abs(first) == 0.5 and abs(second) == 0.5
        return {
            "loss": lambda residual, depth, seed: (
                10 ** (square * (1 if residual else 4 * depth))
                * (0.01 if ripple and not residual else 1)
            ),
            "error": lambda residual, depth, seed: min(
                1.0, square * (0.4 if residual else 2)
            ),
        }

    return [
        row
        for first, second in itertools.product(axis, axis)
        for row in nets(first=first, second=second, **at(first, second))
    ]


def one_by_one():
    return [
        {
            **{"kind": "shrink", "seed": 0, "kernel": 5, "time_ratio": 4.2},
            **{"family": "", "depth": 0},
            **{"direct_parameters": 1000, "parameters": 100},
            **{"direct_macs": 20000, "macs": 3000},
        },
        *(
            {
                **{"kind": "exclusive_or", "seed": seed, "layers": layers},
                **{"error": error, "parameters": 321, "macs": 77824},
                **{"family": "", "depth": 0},
            }
            for seed in (0, 1)
            for layers, error in (("linear", 0.4), ("with 1x1 and ReLU", 0.0))
        ),
    ]


ROWS = {
    make.__name__: make
    for make in (
        *(degradation, insertion, gradients, shattered, grid, responses),
        *(linearity, lesions, paths, stochastic_depth, landscape, one_by_one),
    )
}
SETTINGS = {
    "landscape": {"points": 5, "images": 256, "extent": 1.0},
    "one_by_one": {"channels": 192, "width": 32, "size": 28, "shrink": 16},
}
