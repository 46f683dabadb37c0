"""Comparable measurements of every stage, together with the machine's state; and predictions, labelled as such."""
