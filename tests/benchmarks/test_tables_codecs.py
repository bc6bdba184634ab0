from benchmarks import tables

KEY = {"partition": 6, "exact_accuracy": 0.9, "edge_accuracy": 0.8}
ROWS = [
    {**KEY, "quantiser": "centres8", "coder": "lzw", "bytes_mean": 1000.4, "accuracy": 0.89,
     "bound_bytes": 900.0},
    {**KEY, "quantiser": "centres8", "coder": "context", "bytes_mean": 700.0, "accuracy": 0.89,
     "bound_bytes": 900.0},
    {**KEY, "quantiser": "step", "coder": "ladder", "level": 3, "bytes_mean": 500.0,
     "accuracy": 0.895, "encode_ms": 0.5, "decode_ms": 0.75, "blocks_ms": 2.5},
]  # fmt: skip


def test_the_ladder_stands_beside_other_systems():
    """Bytes and accuracy in one cell; what was not measured is left blank."""
    head, row = tables.codecs(ROWS)
    cells = dict(zip(head, row, strict=True))
    assert (cells["after block"], cells["exact"]) == ("6", "90.0%")
    assert cells["AgileNN, Xpi (8 centres, LZW)"] == "1,000 B, 89.0%"
    assert cells["level 3"] == "500 B, 89.5%"
    assert cells["level 4"] == ""


def test_coders_are_columns_and_the_ladder_is_not_among_them():
    """One row a quantiser, with its accuracy and the entropy bound."""
    assert tables.codecs_coders(ROWS) == [
        ["quantiser", "accuracy", "`lzw`", "`context`", "entropy of channels"],
        ["`centres8`", "89.0%", "1,000", "700", "900"],
    ]


def test_a_frame_cut_short_is_compared_with_the_edges_exit():
    """A column for each fraction that arrives."""
    rows = [
        {**KEY, "level": 3, "fraction": 0.5, "accuracy": 0.85},
        {**KEY, "level": 3, "fraction": 1.0, "accuracy": 0.895},
    ]
    assert tables.frame_prefix(rows) == [
        ["after block", "level", "edge's exit", "50% arrive", "100% arrive"],
        ["6", "3", "80.0%", "85.0%", "89.5%"],
    ]


def test_times_are_of_encoding_and_decoding():
    """In milliseconds, apart, beside what the blocks before the link take; blank if not there."""
    assert tables.codecs_time([*ROWS, {**ROWS[2], "partition": 7, "level": 4}]) == [
        ["after block", "blocks before", "level 3", "level 4"],
        ["6", "2.50", "0.50 + 0.75", ""],
        ["7", "2.50", "", "0.50 + 0.75"],
    ]
