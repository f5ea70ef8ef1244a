pytest_plugins = ["taskhub.testing.pytest_async"]
