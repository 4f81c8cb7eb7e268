CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL, kind INTEGER);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
INSERT INTO item SELECT i, printf('item %05d', (i * 7919) % 3001), ((i * 31) % 997) / 8.0, (i * i) % 13 FROM n;
CREATE INDEX by_kind ON item (kind, price);
SELECT kind, count(*), printf('%.3f', sum(price)), min(name), max(name) FROM item GROUP BY kind ORDER BY kind;
SELECT a.kind, count(*) FROM item a JOIN item b ON a.kind = b.kind AND b.id = a.id + 13 GROUP BY a.kind ORDER BY 2 DESC, 1;
UPDATE item SET name = upper(name) WHERE kind IN (1, 3);
DELETE FROM item WHERE price > 100;
SELECT count(*), printf('%.3f', avg(price)), group_concat(DISTINCT kind) FROM (SELECT * FROM item ORDER BY kind);
SELECT name, id, rank() OVER (PARTITION BY kind ORDER BY price DESC, id) FROM item WHERE id % 97 = 0 ORDER BY id;
PRAGMA integrity_check;
