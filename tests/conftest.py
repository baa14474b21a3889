"""Every test, and every program that a test starts, uses one thread: small networks run far slower on several."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)
