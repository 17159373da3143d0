"""What a training takes, before it is begun: a step is run on tensors without data, and what it did is counted."""

from .estimates import Estimate, estimate
from .hardware import HARDWARE, Hardware, measure_cpu
from .trace import StepTrace, trace_step

__all__ = ["HARDWARE", "Estimate", "Hardware", "StepTrace", "estimate", "measure_cpu", "trace_step"]
