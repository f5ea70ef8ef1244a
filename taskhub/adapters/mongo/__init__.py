"""The store for several servers: MongoDB, standalone or replica set."""

from taskhub.adapters.mongo.stores import MongoStores, open_mongo

__all__ = ["MongoStores", "open_mongo"]
