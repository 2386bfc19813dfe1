"""Multitask pretraining: ``--task unival_pretrain`` trains one stage of a mixture file."""
