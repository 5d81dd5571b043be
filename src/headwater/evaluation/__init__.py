"""Evaluations of methods: tasks with known answers, metrics with intervals, and the training they need."""
