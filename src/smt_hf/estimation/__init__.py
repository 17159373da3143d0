"""Estimates the cost of a training before it starts: runs a step on tensors without data, and counts what it does."""

from .estimates import Estimate, estimate
from .hardware import HARDWARE, Hardware, measure_cpu
from .trace import StepTrace, trace_step

__all__ = ["HARDWARE", "Estimate", "Hardware", "StepTrace", "estimate", "measure_cpu", "trace_step"]
