"""`phalanx check --tpu`: a config compiled for a TPU by the compiler of TPUs, without one."""
