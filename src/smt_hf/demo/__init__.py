"""The built-in stories, for demos and tests on machines without a network."""

from .stories import STORY_SEPARATOR, Story, generate_stories, generate_story, tell_story, write_stories

__all__ = ["STORY_SEPARATOR", "Story", "generate_stories", "generate_story", "tell_story", "write_stories"]
