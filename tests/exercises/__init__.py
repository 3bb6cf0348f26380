"""Answers to the exercises, a file for each module of checks: right ones, wrong ones and hints."""
