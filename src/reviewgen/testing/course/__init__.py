"""The course: notebooks with holes, and the laws that check what a learner has written."""
