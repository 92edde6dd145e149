"""Lessons: one source each, from which come the instructor's notebook, the student's, and the check of what is handed in.

Reading order: lesson.py (what a lesson calls), source.py (how its file is written), student.py, build.py, hand_in.py, scaffold.py.
"""
