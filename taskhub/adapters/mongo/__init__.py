"""The store for several servers: MongoDB, standalone or replica set."""

from taskhub.adapters.mongo.client import address
from taskhub.adapters.mongo.stores import MongoStores, open_mongo

__all__ = ["MongoStores", "address", "open_mongo"]
