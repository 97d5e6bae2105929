import pytest
import torch
from torch import Tensor

from asit_core.averaging import (
    Predictions,
    ast_ensemble,
    average_checkpoints,
    average_weights,
    ensemble,
)
from asit_core.checkpoint import Checkpoint, save_checkpoint
from asit_core.classifier import Classifier
from asit_core.encoder import EncoderConfig, SpectrogramEncoder
from asit_core.initialization import initialize
from asit_core.interop import ModelWeights, read_model, save_model
from asit_core.seeding import stream
from asit_core.spectrogram import LogMelConfig

IDS = ["a", "b", "c"]


def _state(seed: int) -> dict[str, Tensor]:
    generator = stream(seed, "test_weights")
    return {
        "weight": torch.randn(3, 2, generator=generator),
        "half": torch.randn(4, generator=generator).bfloat16(),
        "grid": torch.tensor([8, 2]),
    }


def test_weights_are_averaged_tensor_by_tensor():
    states = [_state(seed) for seed in range(5)]
    average = average_weights(iter(states))
    for name in ("weight", "half"):
        assert average[name].dtype == states[0][name].dtype
        for index, value in enumerate(average[name].flatten().tolist()):
            exact = sum(state[name].flatten()[index].item() for state in states) / 5
            assert value == pytest.approx(exact, rel=2**-8 if name == "half" else 1e-6)
    assert torch.equal(average["grid"], states[0]["grid"])


def test_equal_states_average_to_themselves():
    average = average_weights(_state(0) for _ in range(7))
    assert all(torch.equal(average[name], value) for name, value in _state(0).items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": None}, "'weight' is missing in 1"),
        ({"extra": torch.zeros(1)}, "'extra' is only in 1"),
        (
            {"weight": torch.zeros(2, 3)},
            r"'weight' of state 1 must have shape \(3, 2\), but got \(2",
        ),
        ({"grid": torch.tensor([9, 2])}, "'grid' of state 1 must equal that of state 0"),
    ],
)
def test_different_models_are_not_averaged(change, message):
    other = {name: value for name, value in (_state(1) | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        average_weights([_state(0), other])


def test_nothing_is_not_averaged():
    with pytest.raises(ValueError, match="states must hold at least one model"):
        average_weights([])
    with pytest.raises(ValueError, match="states must hold at least one model"):
        average_checkpoints([])


def test_checkpoint_files_are_averaged(tmp_path):
    paths = [tmp_path / f"epoch{epoch}.safetensors" for epoch in range(3)]
    for epoch, path in enumerate(paths):
        meta = {"kind": "classifier", "input_frames": 32, "epoch": epoch}
        save_checkpoint(path, Checkpoint(_state(epoch), meta))
    average = average_checkpoints(paths)
    expected = average_weights(_state(epoch) for epoch in range(3))
    assert all(torch.equal(average.tensors[name], value) for name, value in expected.items())
    assert average.meta["input_frames"] == 32
    assert average.meta["averaged"] == [path.name for path in paths]
    save_checkpoint(paths[2], Checkpoint(_state(2), {"kind": "classifier", "input_frames": 64}))
    with pytest.raises(ValueError, match=r"epoch2.* input_frames must be 32 as in .*, but got 64"):
        average_checkpoints(paths)


def test_averaged_model_files_open_as_models(tmp_path):
    config = EncoderConfig(embed_dim=8, depth=1, num_heads=1, patch_frames=8, input_bins=16)
    models = []
    for seed in range(2):
        encoder = SpectrogramEncoder(config, input_frames=16)
        initialize(encoder, seed=seed)
        classifier = Classifier(encoder, num_classes=3, seed=seed)
        model = ModelWeights(
            tensors=dict(classifier.state_dict()),
            encoder=config,
            input_frames=16,
            front_end=LogMelConfig(num_mel_bins=16),
            pool="mean",
            source="test",
        )
        save_model(tmp_path / f"{seed}.safetensors", model)
        models.append(model)
    average = average_checkpoints([tmp_path / "0.safetensors", tmp_path / "1.safetensors"])
    save_checkpoint(tmp_path / "mean.safetensors", average)
    opened = read_model(tmp_path / "mean.safetensors")
    assert opened.pool == "mean"
    for name, value in opened.tensors.items():
        torch.testing.assert_close(value, (models[0].tensors[name] + models[1].tensors[name]) / 2)


def _member(seed: int, ids: list[str] = IDS) -> Predictions:
    return Predictions(ids, torch.rand(len(ids), 4, generator=stream(seed, "test_scores")))


def test_an_ensemble_is_the_mean_of_probabilities():
    members = [_member(seed) for seed in range(3)]
    mean = ensemble(members)
    assert mean.clip_ids == IDS
    for clip in range(3):
        for index in range(4):
            exact = sum(member.probability_MC[clip, index].item() for member in members) / 3
            assert mean.probability_MC[clip, index].item() == pytest.approx(exact, rel=1e-6)


def test_asts_ensembles_are_three_seeds_and_six_models():
    strides = [16, 10, 12, 10, 14, 10]
    members = [(stride, _member(seed)) for seed, stride in enumerate(strides)]
    large = ast_ensemble(members, "M").probability_MC
    torch.testing.assert_close(large, ensemble([m for _, m in members]).probability_MC)
    small = [member for member in members if member[0] == 10]
    torch.testing.assert_close(
        ast_ensemble(small, "S").probability_MC, ensemble([m for _, m in small]).probability_MC
    )
    with pytest.raises(ValueError, match=r"ensemble S must have strides \(10, 10, 10\), but got"):
        ast_ensemble(members, "S")
    with pytest.raises(ValueError, match="which must be S or M, but got 'L'"):
        ast_ensemble(members, "L")  # pyright: ignore[reportArgumentType]


def test_members_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="members must hold at least one model's predictions"):
        ensemble([])
    with pytest.raises(ValueError, match="member 1 must predict the clips of member 0 in their"):
        ensemble([_member(0), _member(1, ["a", "c", "b"])])
    wide = Predictions(IDS, torch.rand(3, 5, generator=stream(2, "test_scores")))
    with pytest.raises(ValueError, match=r"member 1 must have shape \(3, 4\), but got \(3, 5\)"):
        ensemble([_member(0), wide])
    logits = Predictions(IDS, torch.full((3, 4), 1.5))
    with pytest.raises(ValueError, match=r"member 1 must hold probabilities .* got 1\.5 to 1\.5"):
        ensemble([_member(0), logits])
    with pytest.raises(ValueError, match="member 0 must hold probabilities"):
        ensemble([Predictions(IDS, torch.full((3, 4), float("nan")))])
