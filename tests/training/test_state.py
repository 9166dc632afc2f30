from rfdetr.training.state import BestScores, Progress


def test_steps_fill_epochs() -> None:
    progress = Progress(seed=0)
    seen = []
    for _ in range(4):
        progress.next_step(steps_per_epoch=3)
        seen.append((progress.step, progress.epoch, progress.step_in_epoch))
    assert seen == [(1, 0, 1), (2, 0, 2), (3, 1, 0), (4, 1, 1)]


def test_progress_survives_being_written_down() -> None:
    best = BestScores(regular=0.4, regular_metrics={"mAP_50_95": 0.4}, watched=0.4, evaluations_without_improvement=2)
    progress = Progress(seed=5, epoch=2, step_in_epoch=1, step=7, best=best, history=[{"epoch": 1}])
    assert Progress.from_dict(progress.to_dict()) == progress
