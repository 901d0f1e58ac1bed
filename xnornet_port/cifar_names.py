"""What the options need to know of CIFAR; it imports nothing."""

__all__ = ["CIFAR_CLASSES", "CIFAR_SIDE"]

CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}
"""The values of -dataset, and how many classes they have."""

CIFAR_SIDE = 32
"""Pixels of a picture's side."""
