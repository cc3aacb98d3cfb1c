"""Builds `models/support-tiny`: phrases, dialogues, tokenizer, training and evaluation."""
