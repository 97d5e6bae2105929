from asit_platform.words import ABSENT, duration_text, parameter_text, plural, short_names


def test_names_keep_what_tells_them_apart():
    paths = ["pretrain.pretext.a.weight", "pretrain.pretext.b.weight", "epochs", "x.a.weight"]
    assert short_names(paths) == {
        "pretrain.pretext.a.weight": "pretext.a.weight",
        "pretrain.pretext.b.weight": "b.weight",
        "epochs": "epochs",
        "x.a.weight": "x.a.weight",
    }


def test_names_are_as_short_as_asked():
    paths = ["pretrain.masking.ratio", "pretrain.a.weight", "pretrain.b.weight", "weight"]
    names = short_names(paths, at_least=1)
    assert list(names.values()) == ["ratio", "a.weight", "b.weight", "weight"]
    assert short_names([]) == {}


def test_durations_use_two_units():
    texts = [duration_text(each) for each in (None, 3.21, 9.96, 42, 59.6, 185, 7384)]
    assert texts == [ABSENT, "3.2 s", "10 s", "42 s", "1 min 00 s", "3 min 05 s", "2 h 03 min"]


def test_values_and_counts():
    assert [parameter_text(each) for each in (0.123456, True, None, 12, "tpe")] == [
        "0.1235", "true", "none", "12", "tpe"
    ]  # fmt: skip
    assert [plural(1, "trial"), plural(1200, "trial")] == ["1 trial", "1,200 trials"]
