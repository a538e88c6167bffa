"""Study files that `qsim report` refuses before it runs anything: each key with what it cannot be, by file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qsim.cli import main
from qsim.folders import folder
from qsim.studies import check, find
from qsim.studies.result import FORMULA

STUDY = (folder("reports") / "variance-vs-batch" / "study.toml").read_text(encoding="utf-8")

EVERY = 'formats = ["float8_e4m3fn", "e4m2fn", "e4m1fn", "e4m0fn", "int8", "int4", "bfloat16"]'
SLOPE = 'slope = [-1.02, -0.98] # of log variance against log batch\narms = ["inputs", "backward", "last layer"]'
FINE = "fine = { samples = 16384, fewest = 64, most = 8192, draws = 2048 }"
PAIR = 'pairs = [["few bits", "int4", "int3"], ["few bits", "int3", "int2"]]'
TITLE = 'title = "Gradient variance against batch size"\n'
LONG = "9" * 400

WRONG = [
    # what is named and is not there
    ('arms = ["inputs", "backward", "last layer"]', 'arms = ["inputs", "backwards"]', "arms = 'backwards' must be one of abs-"),
    ('arms = ["inputs", "backward", "last layer"]', 'arms = ["inputs", "fault"]', "arms = 'fault' must be one of"),
    ('arms = ["inputs", "backward", "last layer"]', 'arms = ["forward"]', "no cell of the arm 'forward' tests this claim"),
    ('arms = ["inputs", "backward", "last layer"]', 'arms = ["nearest"]', "no cell of the arm 'nearest' tests this claim"),
    ('arms = ["inputs", "backward", "last layer"]', 'arms = ["inputs", "inputs"]', "arms: 'inputs' is asked for twice"),
    ('arms = ["inputs", "backward", "last layer"]', 'arms = [["inputs"]]', "arm ['inputs'] must be the name of one"),
    (PAIR, PAIR.replace('"few bits"', '"few"', 1), "pairs = ['few', 'int4', 'int3'] must begin with the name of an arm: "),
    (PAIR, PAIR.replace('"int3"]', '"int1"]'), "no format is called 'int1'"),
    (PAIR, PAIR.replace('"int4"', '"int8"'), "no cell of the arm 'few bits' rounds to int8 by SR at 'last layer: bwd_a"),
    (PAIR, PAIR.replace('"few bits"', '"inputs"'), "no cell of the arm 'inputs' rounds to int4 by SR at"),
    (PAIR, PAIR.replace('"int4", "int3"', '"int3", "int4"'), "must have the format of more bits first, and int3 has no more"),
    (PAIR, PAIR.replace('"int4", "int3"', '"int3", "int3"'), "must have the format of more bits first, and int3 has no more"),
    (PAIR, PAIR.replace('"int3", "int2"', '"int4", "int3"'), "pairs: ['few bits', 'int4', 'int3'] is asked for twice"),
    (PAIR, "pairs = []", "pairs is an empty list"),
    (PAIR, 'pairs = [["few bits", "int4"]]', "pair ['few bits', 'int4'] must be an arm and two formats"),
    (PAIR, 'pairs = ["few bits"]', "pair 'few bits' must be an arm and two formats"),
    ('formats = ["e4m1fn", "e4m0fn", "int4"]', 'formats = ["e4m1fn", "int5"]', "no cell rounds to int5 by RNE"),
    ('formats = ["e4m1fn", "e4m0fn", "int4"]', "formats = []", "formats is an empty list"),
    ('formats = ["e4m1fn", "e4m0fn", "int4"]', 'formats = ["int4", "int4"]', "formats: 'int4' is asked for twice"),
    ('claims = ["sr-unbiased"]', 'claims = ["sr-unbiassed"]', "claims = 'sr-unbiassed' must be one of variance-exact"),
    ('claims = ["sr-unbiased"]', "claims = []", "claims is an empty list"),
    ('claims = ["sr-unbiased"]', 'claims = ["sr-unbiased", "sr-unbiased"]', "'sr-unbiased' is asked for twice"),
    ('claims = ["sr-unbiased"]', 'claims = ["bit-noise"]', "no cell of a planted fault tests bit-noise; name variance-exact"),
    ('claims = ["sr-unbiased"]', "claims = [[]]", "claims = [] must be one of"),
    ('name = "shared word"', 'name = "reused draw"', "the fault 'reused draw' is planted twice"),
    ('formats = ["int2"]', "formats = []", "formats is an empty list"),
    ("batch_sizes = [1024, 2048]", "batch_sizes = []", "batch_sizes is an empty list"),
    # names of arms
    ('name = "forward"', 'name = ""', "name = '' must be 1 to 100 printable characters, without blanks at its ends"),
    ('name = "forward"', 'name = "  "', "name = '  ' must be 1 to 100 printable"),
    ('name = "forward"', 'name = " forward"', "must be 1 to 100 printable"),
    ('name = "forward"', r'name = "for\nward"', r"name = 'for\nward' must be 1 to 100 printable"),
    ('name = "forward"', r'name = "\u001b[31m"', "must be 1 to 100 printable"),
    ('name = "forward"', f'name = "{"n" * 101}"', "must be 1 to 100 printable"),
    ('name = "forward"', 'name = "backward"', "name = 'backward' is asked for twice"),
    ('name = "forward"', 'name = "fault"', "name = 'fault' is what the cells of planted faults are called"),
    ('name = "forward"', "name = 3", "name = 3 must be a text in quotes"),
    *(
        ('name = "forward"', f'name = "{sign}1+1"', f"name = '{sign}1+1' begins with {sign}, as a formula does")
        for sign in "=+-@"
    ),
    # sizes
    ("1024]\nlight", "1024, 1]\nlight", "[full]: batch_sizes: 1 is asked for twice"),
    ("batch_sizes = [1, 4, 16, 64]", "batch_sizes = []", "[quick]: batch_sizes is an empty list"),
    ("batch_sizes = [1, 4, 16, 64]", 'batch_sizes = ["1"]', "[quick]: batch size '1' must be a positive integer"),
    ("batch_sizes = [1, 4, 16, 64]", "batch_sizes = [-4]", "batch size -4 must be a positive"),
    ("batch_sizes = [1, 4, 16, 64]", "batch_sizes = [true]", "batch size True must be a positive"),
    ("batch_sizes = [1, 4, 16, 64]", "batch_sizes = [65537]", "batch size 65537 must be a positive"),
    ("batch_sizes = [4, 16, 64, 256]", "batch_sizes = [4, 16, 1.5]", "[[arm]] few bits: batch size 1.5 must be"),
    ("batch_sizes = [4, 16, 64, 256]", "batch_sizes = [4, 4]", "is asked for twice"),
    ("batch_sizes = [4, 16, 64, 256]", "batch_sizes = []", "batch_sizes is an empty list"),
    (FINE, FINE.replace("64,", "9999,"), "[full] fine: fewest = 9999 is more than most = 8192"),
    (FINE, FINE.replace("16384", "-16384"), "[full] fine: samples = -16384 must be in 1 .. 4294967296"),
    (FINE, FINE.replace("2048", "0"), "draws = 0 must be in 1"),
    (FINE, FINE.replace("2048", "nan"), "draws = nan must be an integer"),
    (FINE, FINE.replace("2048", LONG), "draws = 99999999999999999999... (400 digits) must be in 1"),
    (FINE, FINE.replace(", draws = 2048", ""), "key 'draws' is missing"),
    (FINE, "fine = []", "fine = [] must be a table"),
    # the model and the statistics
    ("widths = [64, 32, 32, 10]", "widths = [64, -32, 10]", "widths = [64, -32, 10] must be 3 to 100 positive integers"),
    ("widths = [64, 32, 32, 10]", f"widths = [64, {LONG}, 10]", "must be 3 to 100 positive integers of at most 65536"),
    ("widths = [64, 32, 32, 10]", f"widths = [64, {'2, ' * 5000}10]", "widths = [64, 2, 2, 2, 2, 2, ...] must be"),
    ("widths = [64, 32, 32, 10]", "widths = [64, true, 10]", "widths = [64, True, 10] must be"),
    ("widths = [64, 32, 32, 10]", "widths = []", "widths = [] must be"),
    ("learning_rate = 0.1", "learning_rate = nan", "learning_rate = nan must be a number of at least 0"),
    ("learning_rate = 0.1", "learning_rate = -0.1", "learning_rate = -0.1 must be"),
    ("learning_rate = 0.1", "learning_rate = inf", "learning_rate = inf must be"),
    ("train_steps = 20", f"train_steps = {LONG}", "train_steps = 99999999999999999999... (400 digits) must be in"),
    ("train_batch = 64", "train_batch = 1_000_000", "train_batch = 1000000 must be in 1 .. 65536"),
    ("false_alarm_rate = 1e-3", "false_alarm_rate = nan", "false_alarm_rate = nan must be between 0 and 1"),
    ("groups = 32 ", "groups = 32.0 ", "groups = 32.0 must be an integer"),
    ("seed = 20251102", "seed = -1", "seed = -1 must be in 0"),
    # margins
    (SLOPE, SLOPE.replace("-1.02", "nan"), "slope = [nan, -0.98] must be two numbers, the lower first"),
    (SLOPE, SLOPE.replace("-0.98", "nan"), "slope = [-1.02, nan] must be"),
    (SLOPE, SLOPE.replace("-1.02, -0.98", "-inf, inf"), "slope = [-inf, inf] must be two numbers"),
    (SLOPE, SLOPE.replace("-1.02, -0.98", "-0.98, -1.02"), "slope = [-0.98, -1.02] must be two numbers, the lower"),
    (SLOPE, SLOPE.replace("-1.02, ", ""), "slope = [-0.98] must be two numbers"),
    (SLOPE, SLOPE.replace("[-1.02, -0.98]", "[]"), "slope = [] must be two numbers"),
    (SLOPE, SLOPE.replace("-1.02", "true"), "slope = [True, -0.98] must be two numbers"),
    ("ratio = [1.8, 2.3]", "ratio = [-1.8, 2.3]", "ratio = [-1.8, 2.3] must not begin below 0"),
    ("half_width = 0.15", "half_width = nan", "half_width = nan must be positive"),
    ("half_width = 0.15", "half_width = 0.0", "half_width = 0.0 must be positive"),
    ("half_width = 0.15", "half_width = inf", "half_width = inf must be positive"),
    ("share = 0.1", "share = 1.5", "share = 1.5 must be at most 1"),
    ("bias = 0.01 # |bias| at most", "bias = -0.01 # |bias| at most", "bias = -0.01 must be positive"),
    # networks
    ("seeds = [0, 1, 2, 3, 4, 5]", "seeds = []", "seeds is an empty list"),
    ("seeds = [0, 1, 2, 3, 4, 5]", "seeds = [0, 0]", "seeds: 0 is asked for twice"),
    ("seeds = [0, 1, 2, 3, 4, 5]", "seeds = [-1]", "seeds: -1 must be an integer in 0 .."),
    ("train_steps = [20, 200]", 'train_steps = ["20"]', "train_steps: '20' must be an integer in 0 .."),
    ('[["networks", "float8_e4m3fn"', '[["last layer", "float8_e4m3fn"', "must begin with the name of an arm: networks or"),
    # data, which this study has none of its own of
    (TITLE, TITLE + 'data = { name = "mnist" }\n', "[data]: name = 'mnist' must be one of digits or cifar10"),
    (TITLE, TITLE + "data = { samples = 3000 }\n", "[data]: samples = 3000 of 1797"),
    (TITLE, TITLE + 'data = { standardize = "rows" }\n', "standardize = 'rows' must be one of columns, set or none"),
    (TITLE, TITLE + 'data = { label = "y" }\n', "label belongs to a file"),
    (TITLE, TITLE + 'data = { file = "x.csv" }\n', "[data]: key 'label' is missing"),
    (TITLE, TITLE + 'data = { files = "x.csv" }\n', "unknown key 'files'; did you mean file"),
    # arms
    ('points = ["bwd_act"]', 'points = ["bwd_gradd"]', "points = 'bwd_gradd' must be one of fwd_act, fwd_weight, bwd_act, "),
    ('points = ["bwd_act"]', 'points = [""]', "points = '' must be one of"),
    ('points = ["bwd_act"]', "points = [1]", "points = 1 must be a list of texts"),
    ('points = ["bwd_act"]', 'points = ["bwd_act+"]', "or several of them joined by +, or all; 'last layer: ' before them"),
    ('modes = ["RNE"]', 'modes = ["RNX"]', "modes = 'RNX': no rounding mode is called 'RNX'; did you mean RTN, RNZ or RNP?"),
    ('modes = ["RNE"]', 'modes = ["SRA(99)"]', "modes = 'SRA(99)': "),
    ('modes = ["RNE"]', "modes = [1]", "modes = 1 must be a list of texts"),
    ('draws = "many"\n', 'draws = "light"\nseed = 3\n', "unknown key 'seed'; did you mean seeds"),
    ('modes = ["RNE"]', "modes = []", "modes is an empty list"),
    ('modes = ["RNE"]', 'modes = ["RNE", "RNE"]', "is asked for twice"),
    ('draws = "wide"', 'draws = "wider"', "draws = 'wider' must be one of light, coarse"),
    ('scale = "absmax"', 'scale = "absmux"', "scale = 'absmux' must be one of frozen, full-range, underflow, absmax"),
    ('scale = "absmax"', "scale = {}", "scale = {} must be a text in quotes"),
    (EVERY, EVERY.replace('"int8"', '"e4m3"'), "is asked for twice"),  # which is float8_e4m3fn
    (EVERY, EVERY.replace('"int8"', "8"), "a format is named by a string"),
    (EVERY, EVERY.replace('"int8"', '""'), "no format is called ''"),
    ('title = "Gradient variance against batch size"', 'title = " "', "key 'title' is missing or not a text"),
    ('kind = "gradient_variance"', f"kind = {LONG}", "key 'kind' is missing or not a text"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "told"), WRONG, ids=range(len(WRONG)))
def test_a_study_is_refused_before_it_runs(
    old: str, new: str, told: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One short sentence names the file, the line of what is wrong and what would be right; exit 2, and no folder is made."""
    assert old in STUDY
    Path("study.toml").write_text(STUDY.replace(old, new, 1), encoding="utf-8")
    assert main(["report", "study.toml", "--jobs", "1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert len(err) < 600
    line = re.fullmatch(r"qsim: study\.toml, line (\d+): [^\n]+\n", err)
    assert line, err
    first = STUDY[: STUDY.index(old)].count("\n") + 1
    # Where it stands; of what is missing or asked for twice at the table, which begins a few lines above.
    assert -12 <= int(line[1]) - first <= old.count("\n") + ("'backward'" in told) * 9
    assert [path.name for path in here.iterdir()] == ["study.toml"]


@pytest.mark.parametrize("sign", [sign for sign in FORMULA if sign.isprintable()])
def test_an_arm_may_hold_what_it_may_not_begin_with(sign: str, tmp_path: Path) -> None:
    """A sign in the middle of a name is no formula: "last layer, bits-1" is as good a name as any."""
    path = tmp_path / "study.toml"
    path.write_text(STUDY.replace('name = "forward"', f'name = "for{sign}ward"'), encoding="utf-8")
    check(find(str(path)))


def test_a_claim_may_have_one_side(here: Path) -> None:
    """A margin may be open at one end: more than so much."""
    path = Path("study.toml")
    path.write_text(STUDY.replace("ratio = [4.4, 16.0]", "ratio = [4.4, inf]"), encoding="utf-8")
    check(find(str(path)))
