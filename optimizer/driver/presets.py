"""The pipelines, one line a level."""

LEVELS = {
    0: "",
    1: "normalize (propagate fold simplify)* cleanup",
    2: "normalize (propagate fold simplify)* recognize finish (propagate fold simplify)* cleanup",
}
PRUNE = "normalize prune cleanup"
QUANTIZE = f"{LEVELS[2]} quantize cleanup"
