"""Train one run, or several seeds side by side: python train.py algorithm=GAIL env=hopper"""

from omegaconf import DictConfig

from training.cli import command_line


def train(composed: DictConfig) -> float:
    """One run, from its configuration to the mean of its final scores."""
    # Imported here so that `--help` does not wait for PyTorch.
    import torch

    from training.build import build
    from training.config import parse
    from training.loop import Loop
    from training.report import check_extras, run_and_report
    from training.run import open_run

    config = parse(composed)
    torch.set_num_threads(config.threads)
    parts = build(config)
    check_extras(config)
    with open_run(config, composed) as (folder, resumed):
        return run_and_report(Loop(config, parts, folder, resumed))


if __name__ == "__main__":
    command_line(train)
