-- An order book in memory: bulk inserts, indices, joins, grouping, text, updates and deletes. @ROWS@: orders.
PRAGMA journal_mode = OFF;
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, town INTEGER);
CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer INTEGER, article INTEGER, amount INTEGER, note TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
  INSERT INTO customer SELECT i, 'customer ' || (i * 7919 % 1000), i % 37 FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < @ROWS@)
  INSERT INTO purchase SELECT i, i * 7919 % 500 + 1, i * 104729 % 211, i % 97, printf('note %05d', i * 31 % 9973) FROM n;
COMMIT;
CREATE INDEX purchase_customer ON purchase (customer, amount);
SELECT town, count(*), sum(amount) FROM purchase JOIN customer ON customer.id = purchase.customer
  GROUP BY town ORDER BY 3 DESC LIMIT 5;
SELECT article, avg(amount), max(note) FROM purchase WHERE note LIKE '%7%' GROUP BY article ORDER BY 2, 1 LIMIT 5;
UPDATE purchase SET amount = amount + 1 WHERE customer IN (SELECT id FROM customer WHERE town < 9);
SELECT name, (SELECT sum(amount) FROM purchase WHERE customer = customer.id AND amount > 50) AS large
  FROM customer ORDER BY large DESC, name LIMIT 5;
DELETE FROM purchase WHERE article % 3 = 0;
SELECT count(*), sum(amount), min(note), max(note) FROM purchase;
SELECT upper(substr(note, 3, 5)), count(*) FROM purchase GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 3;
