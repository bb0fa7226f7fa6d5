import math

import pytest
import torch

from tvilfm_plugin.modeling.schedules import warmup_cosine


def test_rates_rise_over_a_twentieth_of_the_steps_and_end_at_zero() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = warmup_cosine(optimizer, 40)
    rates = []
    for _ in range(41):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:2] == pytest.approx([1.0, 2.0 * (0.5 + 0.5 * math.cos(math.pi / 40))])
    assert rates[20] == pytest.approx(1.0) and rates[40] == pytest.approx(0.0) and rates[1:] == sorted(rates[1:], reverse=True)
    assert warmup_cosine(optimizer, 0).get_last_lr() == [2.0]
