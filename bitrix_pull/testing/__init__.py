"""What tests of your own handlers need. ``pytest_plugin.py`` brings its fixtures to pytest."""
