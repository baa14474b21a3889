"""Train one algorithm on every benchmark environment: python train_all.py algorithm=GAIL

With -m it searches for hyperparameters that do well on all of them: python train_all.py -m algorithm=GAIL
"""

import sys

from training.cli import errors_in_one_line, help_text, print_help, with_home


def main() -> None:
    """Exit status as of train.py."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print_help((__doc__ or "") + "\n" + help_text("python train_all.py algorithm=<name> [env=<name>,<name>]"))
        return
    with errors_in_one_line(lambda: True):
        from training.sweeps.command import train_everywhere

        sys.exit(train_everywhere(with_home(sys.argv[1:])))


if __name__ == "__main__":
    main()
