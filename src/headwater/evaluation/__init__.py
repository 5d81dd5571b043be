"""How good a method is: tasks with known answers, metrics with intervals, and the training they need."""
