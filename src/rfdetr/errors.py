"""Everything a caller may want to catch.

RFDETRError
+-- ConfigError    a setting is unknown, out of range, or contradicts another
+-- DatasetError   the dataset cannot be trained on
+-- ImageError     an image cannot be read
+-- TrainingError  a training run cannot go on
+-- WeightsError   a checkpoint is missing, damaged, or made for another architecture

Interrupted, a SystemExit, ends a program whose training run was stopped by a signal.
"""


class RFDETRError(Exception):
    """The base of every error this library raises for a mistake of its caller."""


class ConfigError(RFDETRError):
    """A setting is unknown, out of range, or contradicts another."""


class DatasetError(RFDETRError):
    """The dataset cannot be trained on or evaluated."""


class ImageError(RFDETRError):
    """An image cannot be read."""


class TrainingError(RFDETRError):
    """A training run cannot go on."""


class WeightsError(RFDETRError):
    """A checkpoint is missing, damaged, or made for another architecture."""


class Interrupted(SystemExit):
    """A run was stopped by SIGTERM or Ctrl-C and has saved its state. The exit status is 128 + the signal's number."""
