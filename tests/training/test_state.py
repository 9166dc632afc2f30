from rfdetr.training.state import Best, Progress


def test_a_step_is_one_of_the_epoch_until_the_next_one_begins() -> None:
    progress = Progress(seed=0, num_images=6, images_per_step=2)
    seen = []
    for _ in range(3):
        progress.next_step()
        seen.append((progress.step, progress.epoch, progress.step_in_epoch))
    progress.next_epoch()
    progress.next_step()
    seen.append((progress.step, progress.epoch, progress.step_in_epoch))
    assert seen == [(1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 1, 1)]


def test_progress_survives_being_written_down() -> None:
    progress = Progress(
        seed=5,
        num_images=6,
        images_per_step=2,
        epoch=2,
        step_in_epoch=1,
        step=7,
        best={"regular": Best(0.4, 3, {"mAP_50_95": 0.4}), "ema": Best()},
        watched=0.4,
        watched_epoch=1,
        evaluated_epoch=2,
        history=[{"epoch": 1}],
        logger_ids={"wandb": "x7"},
    )
    written = progress.to_dict()
    assert type(written["best"]["regular"]) is dict
    assert Progress.from_dict(written) == progress
