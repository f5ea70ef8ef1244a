"""What a task, a DAG, a run and an event are: values and pure functions, no I/O."""
