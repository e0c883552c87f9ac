"""Work in processes: in order, and a process that dies is an error, not a hang."""

from __future__ import annotations

import operator
import os

import pytest

from components.dataset.workers import ordered
from components.errors import DataError


def test_results_come_in_the_order_of_the_tasks():
    assert list(ordered(operator.mul, 3, range(50), images=200)) == [3 * n for n in range(50)]


def test_few_images_need_no_process():
    assert list(ordered(lambda add, n: add + n, 1, [1, 2], images=2)) == [2, 3]


def test_a_process_that_dies_is_one_error(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(DataError, match="a process that decodes images died"):
        list(ordered(operator.call, os._exit, [9], images=200))  # os._exit(9), in a worker
