"""Models that come from elsewhere and models that go there: other programs' files, read without running any of them."""
