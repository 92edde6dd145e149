"""Lessons: one source each, from which come the instructor's notebook, the student's, and the check of what is handed in.

Reading order: lesson.py (what a lesson calls), source.py (how its file is written), student.py, walk.py, build.py, bundle.py, hand_in.py,
scaffold.py.
"""
